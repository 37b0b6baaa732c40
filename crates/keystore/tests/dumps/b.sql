-- MySQL dump 10.11
--
-- Host: localhost    Database: hydra_b
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
INSERT INTO `t_meta_vers` (`major`, `minor`, `patch`) VALUES (1,2,0);
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
INSERT INTO `t_schema` (`schema_id`, `schema_name`) VALUES (1,'eds');
INSERT INTO `t_schema` (`schema_id`, `schema_name`) VALUES (2,'other');
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
INSERT INTO `t_principal` (`principal_id`, `principal_name`) VALUES (11,'/O=Utopia/OU=Radiology/CN=Alice Example');
INSERT INTO `t_principal` (`principal_id`, `principal_name`) VALUES (12,'/myvo/Role=NULL/Capability=NULL');
INSERT INTO `t_principal` (`principal_id`, `principal_name`) VALUES (13,'/O=Utopia/CN=Bob Example/Email=bob@example.org');
INSERT INTO `t_principal` (`principal_id`, `principal_name`) VALUES (14,'default-group');
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
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (110,'/myvo/home/secret',11,12,-17,0,0,1,'2009-11-10 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (111,'/myvo/scans/a_b',11,14,-17,0,0,1,'2009-11-11 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (112,'/myvo/it\'s \\ über',11,12,-17,0,0,1,'2009-11-12 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (113,'/myvo/iv',11,12,-17,0,0,1,'2009-11-13 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (114,'/myvo/twice',11,12,-17,0,0,1,'2009-11-14 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (115,'/myvo/Case',11,12,-17,0,0,1,'2009-11-15 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (116,'/myvo/bits',11,12,-17,0,0,1,'2009-11-16 10:00:01');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (117,'/myvo/nokey',11,12,-17,0,0,1,'2010-01-01 00:00:00');
INSERT INTO `t_entry` (`entry_id`, `entry_name`, `owner_id`, `group_id`, `user_perm`, `group_perm`, `other_perm`, `schema_id`, `creation_time`) VALUES (118,'/myvo/elsewhere',11,12,-17,0,0,2,'2010-01-01 00:00:00');
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
INSERT INTO `t_acl` (`entry_id`, `principal_id`, `perm`) VALUES (110,13,96);
INSERT INTO `t_acl` (`entry_id`, `principal_id`, `perm`) VALUES (110,12,48);
INSERT INTO `t_acl` (`entry_id`, `principal_id`, `perm`) VALUES (910,13,96);
INSERT INTO `t_acl` (`entry_id`, `principal_id`, `perm`) VALUES (911,13,-1);
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
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (110,'bf-cbc','a5dd079f919130acd5eec373f1f3939b','0102030405060708','128',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (111,'aes-256-cbc','016a1f2dbc5d6fd8a75d9fd10500b3539cddf9efdf291b90ad6f49362e701a32','000102030405060708090A0B0C0D0E0F','256',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (112,'des-ede3-cbc','eb8e3076b99b33c55196f75b8480552353813cc1f77d31e0','A0A1A2A3A4A5A6A7','192',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (113,'bf-cbc','0cfb6650c7791aeb9f2f37056f8168a1','0102030405060709','128',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (114,'bf-cbc','b55eb18f042ff2db94aa3c83c816d67e','0102030405060708','128',2,0);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (115,'bf-cbc','bea48252f1dd76268ff68ec953576547','0102030405060708','128',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (116,'bf-cbc','a70c5f1f9ca5427de4f3326d0e2ed243','0102030405060708','192',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (118,'bf-cbc','0000111122223333','0102030405060708','64',2,1);
INSERT INTO `eds` (`entry_id`, `edscipher`, `edskey`, `edsiv`, `edskeyinfo`, `edskeysneeded`, `edskeyindex`) VALUES (910,'bf-cbc','9999111122223333','0102030405060708','64',2,1);
/*!40000 ALTER TABLE `eds` ENABLE KEYS */;
UNLOCK TABLES;

-- Dump completed on 2026-11-22  3:00:00
