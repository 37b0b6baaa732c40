-- MySQL dump 10.11
--
-- Host: localhost    Database: hydra_c
-- ------------------------------------------------------
-- Server version	5.0.95

/*!40101 SET NAMES utf8 */;
/*!40103 SET TIME_ZONE='+00:00' */;

CREATE DATABASE /*!32312 IF NOT EXISTS*/ `hydra_c` /*!40100 DEFAULT CHARACTER SET utf8 */;

USE `hydra_c`;

--
-- Table structure for table `t_meta_vers`
--

DROP TABLE IF EXISTS `t_meta_vers`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `t_meta_vers` (
  `major` int(11) NOT NULL,
  `minor` int(11) NOT NULL,
  `patch` int(11) NOT NULL
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `t_meta_vers` WRITE;
/*!40000 ALTER TABLE `t_meta_vers` DISABLE KEYS */;
INSERT INTO `t_meta_vers` VALUES (1,2,0);
/*!40000 ALTER TABLE `t_meta_vers` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `t_schema`
--

DROP TABLE IF EXISTS `t_schema`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `t_schema` (
  `schema_id` int(11) NOT NULL AUTO_INCREMENT,
  `schema_name` varchar(250) NOT NULL,
  PRIMARY KEY (`schema_id`),
  UNIQUE KEY `schema_name` (`schema_name`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `t_schema` WRITE;
/*!40000 ALTER TABLE `t_schema` DISABLE KEYS */;
INSERT INTO `t_schema` VALUES (1,'eds'),(2,'other');
/*!40000 ALTER TABLE `t_schema` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `t_principal`
--

DROP TABLE IF EXISTS `t_principal`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `t_principal` (
  `principal_id` int(11) NOT NULL AUTO_INCREMENT,
  `principal_name` varchar(250) NOT NULL,
  PRIMARY KEY (`principal_id`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `t_principal` WRITE;
/*!40000 ALTER TABLE `t_principal` DISABLE KEYS */;
INSERT INTO `t_principal` VALUES (21,'/O=Utopia/OU=Radiology/CN=Alice Example'),(22,'/myvo/Role=NULL/Capability=NULL'),(23,'/O=Utopia/CN=Bob Example/Email=bob@example.org'),(24,'default-group');
/*!40000 ALTER TABLE `t_principal` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `t_entry`
--

DROP TABLE IF EXISTS `t_entry`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `t_entry` (
  `entry_id` int(11) NOT NULL AUTO_INCREMENT,
  `entry_name` varchar(250) NOT NULL,
  `owner_id` int(11) NOT NULL,
  `group_id` int(11) DEFAULT NULL,
  `user_perm` tinyint(4) NOT NULL DEFAULT '0',
  `group_perm` tinyint(4) NOT NULL,
  `other_perm` tinyint(4) NOT NULL,
  `schema_id` int(11) DEFAULT NULL,
  `creation_time` timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (`entry_id`),
  UNIQUE KEY `entry_name` (`entry_name`),
  CONSTRAINT `owner` FOREIGN KEY (`owner_id`) REFERENCES `t_principal` (`principal_id`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `t_entry` WRITE;
/*!40000 ALTER TABLE `t_entry` DISABLE KEYS */;
INSERT INTO `t_entry` VALUES (120,'/myvo/bits',21,22,-17,0,0,1,'2009-11-10 10:00:02'),(121,'/myvo/case',21,22,-17,0,0,1,'2009-11-11 10:00:02'),(122,'/myvo/twice',21,22,-17,0,0,1,'2009-11-12 10:00:02'),(123,'/myvo/iv',21,22,-17,0,0,1,'2009-11-13 10:00:02'),(124,'/myvo/it\'s \\ über',21,22,-17,0,0,1,'2009-11-14 10:00:02'),(125,'/myvo/scans/a_b',21,24,-17,0,0,1,'2009-11-15 10:00:02'),(126,'/myvo/home/secret',21,22,-17,0,0,1,'2009-11-16 10:00:02'),(127,'/myvo/nokey',21,22,-17,0,0,1,'2010-01-01 00:00:00'),(128,'/myvo/elsewhere',21,22,-17,0,0,2,'2010-01-01 00:00:00');
/*!40000 ALTER TABLE `t_entry` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `t_acl`
--

DROP TABLE IF EXISTS `t_acl`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `t_acl` (
  `entry_id` int(11) NOT NULL,
  `principal_id` int(11) NOT NULL,
  `perm` tinyint(4) NOT NULL,
  KEY `entry_id` (`entry_id`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `t_acl` WRITE;
/*!40000 ALTER TABLE `t_acl` DISABLE KEYS */;
INSERT INTO `t_acl` VALUES (126,23,96),(126,22,48),(920,23,96),(921,23,-1);
/*!40000 ALTER TABLE `t_acl` ENABLE KEYS */;
UNLOCK TABLES;

--
-- Table structure for table `eds`
--

DROP TABLE IF EXISTS `eds`;
/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `eds` (
  `entry_id` int(11) NOT NULL,
  `edscipher` varchar(50) DEFAULT NULL,
  `edskey` varchar(200) DEFAULT NULL,
  `edsiv` varchar(200) DEFAULT NULL,
  `edskeyinfo` varchar(200) DEFAULT NULL,
  `edskeysneeded` int(11) DEFAULT NULL,
  `edskeyindex` int(11) DEFAULT NULL,
  PRIMARY KEY (`entry_id`)
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `eds` WRITE;
/*!40000 ALTER TABLE `eds` DISABLE KEYS */;
INSERT INTO `eds` VALUES (120,'bf-cbc','b64efd96d15ec1929330ba8b7ba4994a','0102030405060708','192',2,2),(121,'bf-cbc','6242b26a51418f171c3d45246369f5c1','0102030405060708','128',2,2),(122,'bf-cbc','535dd078a6185027f1327145f1ebfb01','0102030405060708','128',2,2),(123,'bf-cbc','e8bf886711ab8637c41cc16f8da8fac8','FFFFFFFFFFFFFFFF','128',2,2),(124,'des-ede3-cbc','584a3f978d56c4867147e9f6bda6f693f420d200ea2941b6','A0A1A2A3A4A5A6A7','192',2,2),(125,'aes-256-cbc','8a9937451a090518b63688c286e7ea49a6760ffe4e3b869dbf5186d245a8a743','000102030405060708090A0B0C0D0E0F','256',2,2),(126,'bf-cbc','f8c3fa46b82f95bf7ca0cfcf048d65e9','0102030405060708','128',2,2),(128,'bf-cbc','0000111122223333','0102030405060708','64',2,2),(920,'bf-cbc','9999111122223333','0102030405060708','64',2,2);
/*!40000 ALTER TABLE `eds` ENABLE KEYS */;
UNLOCK TABLES;

-- Dump completed on 2026-11-22  3:00:00
