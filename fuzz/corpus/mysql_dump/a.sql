-- MySQL dump 10.11
--
-- Host: localhost    Database: hydra_a
-- ------------------------------------------------------
-- Server version	5.0.95

/*!40101 SET NAMES utf8 */;
/*!40103 SET TIME_ZONE='+00:00' */;

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
INSERT INTO `t_principal` VALUES (1,'/O=Utopia/OU=Radiology/CN=Alice Example'),(2,'/myvo/Role=NULL/Capability=NULL'),(3,'/O=Utopia/CN=Bob Example/Email=bob@example.org'),(4,'default-group');
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
INSERT INTO `t_entry` VALUES (100,'/myvo/home/secret',1,2,-17,0,0,1,'2009-11-10 10:00:00'),(101,'/myvo/scans/a_b',1,4,-17,0,0,1,'2009-11-11 10:00:00'),(102,'/myvo/it\'s \\ über',1,2,-17,0,0,1,'2009-11-12 10:00:00'),(103,'/myvo/alone',1,2,-17,0,0,1,'2009-11-13 10:00:00'),(104,'/myvo/iv',1,2,-17,0,0,1,'2009-11-14 10:00:00'),(105,'/myvo/twice',1,2,-17,0,0,1,'2009-11-15 10:00:00'),(106,'/myvo/Case',1,2,-17,0,0,1,'2009-11-16 10:00:00'),(107,'/myvo/bits',1,2,-17,0,0,1,'2009-11-17 10:00:00'),(108,'/myvo/nokey',1,2,-17,0,0,1,'2010-01-01 00:00:00'),(109,'/myvo/elsewhere',1,2,-17,0,0,2,'2010-01-01 00:00:00');
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
INSERT INTO `t_acl` VALUES (100,3,96),(100,2,48),(900,3,96),(901,3,-1);
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
INSERT INTO `eds` VALUES (100,'bf-cbc','52f714e96af3cb8a2f4bb717df68c14d','0102030405060708','128',2,0),(101,'aes-256-cbc','782c07155ec0da989884b6e0830a7c5d9344e3ef7026b0749b8d0b9a17388d12','000102030405060708090A0B0C0D0E0F','256',2,0),(102,'des-ede3-cbc','7ee12155e5e0a2f531e504cf4b5ab3a4b2d3a77304e0220a','A0A1A2A3A4A5A6A7','192',2,0),(103,'bf-cbc','a4ceb80898bf50f50b0b5aba3f1fd2c5','0102030405060708','128',2,0),(104,'bf-cbc','312844397d56af907a42ac8c515ad66b','0102030405060709','128',2,0),(105,'bf-cbc','b55eb18f042ff2db94aa3c83c816d67e','0102030405060708','128',2,0),(106,'bf-cbc','1b15523a92885d3503bed86e4345d4be','0102030405060708','128',2,0),(107,'bf-cbc','97cac09967ecc35936c5aa40a0a90b4b','0102030405060708','192',2,0),(109,'bf-cbc','0000111122223333','0102030405060708','64',2,0),(900,'bf-cbc','9999111122223333','0102030405060708','64',2,0);
/*!40000 ALTER TABLE `eds` ENABLE KEYS */;
UNLOCK TABLES;

CREATE TABLE `t_log` (`id` int, `what` blob);
INSERT INTO `t_log` VALUES (1,0xCAFE),(2,_binary 'a;b\\'),(3,')'),(4,'it\'s''');
-- Dump completed on 2026-11-22  3:00:00
